#!/usr/bin/env node
import { run } from './commands/run.js'

// Who reads only the beginning, such as head, closes the pipe.
process.stdout.on('error', () => process.exit(1))

process.exitCode = await run(process.argv.slice(2), {
  environment: process.env,
  out: text => { process.stdout.write(text) },
  err: text => { process.stderr.write(text) }
})
