/**
 * Certificates of test servers: self-signed, of nobody, until 2126. Made by
 * `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=a.test
 * -addext subjectAltName=DNS:a.test`.
 */
export interface Certificate {
  readonly serverName: string
  readonly cert: string
  readonly key: string
}

export const aTest: Certificate = {
  serverName: 'a.test',
  cert: `-----BEGIN CERTIFICATE-----
MIIBjDCCATKgAwIBAgIUYMiNKD05SZcPGVa5NdRYmFNGXocwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGYS50ZXN0MCAXDTI2MTEyMTIwNDMzNFoYDzIxMjYxMDI4MjA0
MzM0WjARMQ8wDQYDVQQDDAZhLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATez5RRvJZLcx8Wk9+SxlZEmsE4L9gkN48dacMxKQTAgLyWBHpLnyWPo3FUh5ka
KJXVaOxJHr1ZqjhDAJuUSxm3o2YwZDAdBgNVHQ4EFgQUxmAhVbnTWYh/fB2tYnhU
2VNuhMIwHwYDVR0jBBgwFoAUxmAhVbnTWYh/fB2tYnhU2VNuhMIwDwYDVR0TAQH/
BAUwAwEB/zARBgNVHREECjAIggZhLnRlc3QwCgYIKoZIzj0EAwIDSAAwRQIgOsN6
ElytyRQ56efaMSgy/H1Qhzcf4NFoOgU2pP4pF10CIQD+1IcG3jNT9MQXCYEgSMZv
wQCGgv6RFoC6GrRbWUR2cw==
-----END CERTIFICATE-----
`,
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGwE8BWxvt2Cy84kE
EetZu1fTI1u/3GoGx8pQUgUdtOyhRANCAATez5RRvJZLcx8Wk9+SxlZEmsE4L9gk
N48dacMxKQTAgLyWBHpLnyWPo3FUh5kaKJXVaOxJHr1ZqjhDAJuUSxm3
-----END PRIVATE KEY-----
`,
}

export const bTest: Certificate = {
  serverName: 'b.test',
  cert: `-----BEGIN CERTIFICATE-----
MIIBjDCCATKgAwIBAgIUZyCaZZ1Joo6saUnPU/E6GHiw230wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGYi50ZXN0MCAXDTI2MTEyMTIwNDMzNFoYDzIxMjYxMDI4MjA0
MzM0WjARMQ8wDQYDVQQDDAZiLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARWmGX6LIX5034WmZbz0iDTE/2V6HzN81uiZml+fw63PjHdp2QWXRgdqYrba11I
q1JQhfOsgVe+a1f/cPANYDp3o2YwZDAdBgNVHQ4EFgQU9N2pG/aVq3tjh6/kgTho
ToCdz9UwHwYDVR0jBBgwFoAU9N2pG/aVq3tjh6/kgThoToCdz9UwDwYDVR0TAQH/
BAUwAwEB/zARBgNVHREECjAIggZiLnRlc3QwCgYIKoZIzj0EAwIDSAAwRQIgDYod
cBu163fJ2Ka0joJ5Kf+N93xO/4t4o5kJ8ENqDeECIQDN1G6YOSh8HfnPLoiULer6
Nf2vgI9nuTUv0wbxc/2Vfw==
-----END CERTIFICATE-----
`,
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgbl4QWloyhFT2JkCT
pbEiQd40kpHnTNT1kQqnhOGBWjKhRANCAARWmGX6LIX5034WmZbz0iDTE/2V6HzN
81uiZml+fw63PjHdp2QWXRgdqYrba11Iq1JQhfOsgVe+a1f/cPANYDp3
-----END PRIVATE KEY-----
`,
}
