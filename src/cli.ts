#!/usr/bin/env node
import { run } from './commands/run.js'

const args = process.argv.slice(2)
const showsKey = args[0] === 'keys' && ['create', 'rotate'].includes(args[1]!)

process.stdout.on('error', ({ code, message }: NodeJS.ErrnoException) => {
  // Who reads only the beginning, such as head, closes the pipe. Of a key that is shown once that is no end like any other.
  if (code !== 'EPIPE' || showsKey) {
    process.stderr.write(`The output could not be written (${message}). The command has done what it was to do.${showsKey ? ' The key that it was to show is lost: find it with keys list, and rotate or revoke it.' : ''}\n`)
  }
  process.exit(1)
})
// The exit code is to be that of the command.
process.stderr.on('error', () => {})

process.exitCode = await run(args, {
  environment: process.env,
  out: text => { process.stdout.write(text) },
  err: text => { process.stderr.write(text) }
})
