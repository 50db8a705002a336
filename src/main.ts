#!/usr/bin/env bun
import { run } from './cli/cli.ts'

// Exits although a reader thread may still be in a query that nobody waits for any more.
process.exit(await run(process.argv.slice(2)))
