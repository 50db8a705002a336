import { describe, expect, test } from 'bun:test'
import { plainText } from '../../src/apps/community-text.ts'

describe('plainText', () => {
  test.each([
    ['<p>One</p>\n\n<p>two\n words</p>\n', 'One\n\ntwo words'],
    ['a<br>b<br/>c', 'a\nb\nc'],
    ['<ul>\n<li>x</li>\n<li><p>y</p></li>\n</ul>', '- x\n- y'],
    [
      '<p>See <a href="https://a.example/b?c=1&amp;d=2" rel="noreferrer">this</a>.</p>',
      'See this (https://a.example/b?c=1&d=2).',
    ],
    ['<a href="https://a.example">https://a.example</a>', 'https://a.example'],
    ["<a href='/relative'>x</a>", 'x'],
    [
      '<pre><code>if (a &lt; b)\n    c  = 1;\n</code></pre><p>so</p>',
      '```\nif (a < b)\n    c  = 1;\n```\n\nso',
    ],
    ['use <code>x</code>, x<sub>1</sub>, 2<sup>n</sup>', 'use `x`, x_1, 2^n'],
    ['<blockquote>\n  <p>Quoted</p>\n</blockquote>\n<p>own</p>', '> Quoted\n\nown'],
    ['<img src="https://i.example/a.png" alt="a figure">', '[a figure: https://i.example/a.png]'],
    ['<h2>Title</h2>text<hr>end', 'Title\n\ntext\n\n---\n\nend'],
    [
      '&Psi; &psi; &#945; &#x3b1; &amp;lt; &quot;x&quot; &nbsp;y &unknown;',
      '&Psi; ψ α α &lt; "x" y &unknown;',
    ],
    ['$\\langle 0 | 1 \\rangle$ and 1 < 2 > 0', '$\\langle 0 | 1 \\rangle$ and 1 < 2 > 0'],
    ['', ''],
  ])('%j', (html, text) => {
    expect(plainText(html)).toBe(text)
  })

  test.each([
    ['<script>alert(1)</script>x', 'x'],
    ['<SCRIPT src=//evil>alert(1)</SCRIPT >x', 'x'],
    ['<scr<script>ipt>alert(1)</script>', 'ipt>alert(1)'],
    ['<style>p{}</style><iframe src="https://e.example">y</iframe>x', 'x'],
    ['<img src=x onerror=alert(1)>x', '[image]x'],
    ['<img src="x onerror=alert(1)>x', '[image]x'],
    ['<a href="javascript:alert(1)">click</a>', 'click'],
    ['<a href="data:text/html,<script>alert(1)</script>">click</a>', 'click'],
    ['<a href=" java\nscript:alert(1)" onclick="alert(1)">click</a>', 'click'],
    ['<!-- <script>alert(1)</script> -->x<!doctype html><?php echo ?>', 'x'],
    ['<svg/onload=alert(1)>x</svg>', 'x'],
    ['<b', ''],
    ['x<script>never closed', 'x'],
    ['<p title="a > b">x</p>', 'x'],
  ])('leaves nothing of %j that a page could run', (html, text) => {
    expect(plainText(html)).toBe(text)
  })

  test('a sign that is none becomes the sign for that', () => {
    expect(plainText('&#0;&#xd800;&#x110000;&#7;')).toBe('\ufffd\ufffd\ufffd\ufffd')
  })

  test('long input in reasonable time', () => {
    const startedAt = performance.now()
    for (const part of ['<a "', '<', '<p>', '&', '<!--', '<a href="', 'x<sub>1</sub>']) {
      plainText(part.repeat(40_000 / part.length))
    }
    expect(performance.now() - startedAt).toBeLessThan(5_000)
  })
})
