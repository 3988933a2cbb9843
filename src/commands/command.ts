import { parseArgs, type ParseArgsConfig } from 'node:util'

/** What a command has of the process. */
export interface Terminal {
  environment: NodeJS.ProcessEnv
  /** Writes to standard output. */
  out: (text: string) => void
  /** Writes to standard error. */
  err: (text: string) => void
}

export interface Option {
  /** What the help shows for the value, such as `NAME`; an option without is a switch. */
  value?: string
  help: string
  /** @default false */
  isNeeded?: boolean
}

export interface Arguments {
  /** The value of each option that was given; true for a switch. */
  options: Record<string, string | true | undefined>
  positionals: string[]
}

export interface Command {
  /** How it is called, after the program's name, without options. */
  name: string
  summary: string
  /** The names of what it takes besides options; all are needed. */
  positionals?: string[]
  options?: Record<string, Option>
  /** Resolves with the exit code where that is not 0. */
  run: (args: Arguments, terminal: Terminal) => Promise<number | void>
}

/** The command line is not what the command takes. */
export class UsageError extends Error {
  override name = 'UsageError'
}

const help: Option = { help: 'Show this help.' }

/** @throws UsageError that says in a sentence what is wrong */
export function parseArguments ({ positionals: names = [], options = {} }: Command, args: string[]): Arguments {
  const config: NonNullable<ParseArgsConfig['options']> = {}
  for (const [name, { value }] of Object.entries({ ...options, help })) config[name] = { type: value ? 'string' : 'boolean' }
  let parsed: { values: object, positionals: string[] }
  try {
    parsed = parseArgs({ args, options: config, allowPositionals: true })
  } catch (error) {
    // The rest of what Node says is about how to pass a value that begins with a dash.
    throw new UsageError((error as Error).message.split(/\.\s/, 1)[0]!.replace(/\.?$/, '.'))
  }
  const { values, positionals } = parsed
  if (!('help' in values)) {
    if (positionals.length < names.length) throw new UsageError(`${names[positionals.length]} is missing.`)
    if (positionals.length > names.length) throw new UsageError(`Unexpected argument ${JSON.stringify(positionals[names.length])}.`)
    const missing = Object.keys(options).find(name => options[name]!.isNeeded && !(name in values))
    if (missing !== undefined) throw new UsageError(`--${missing} is missing.`)
  }
  return { options: values as Arguments['options'], positionals }
}

/** The help of one command. */
export function commandHelp ({ name, summary, positionals = [], options = {} }: Command): string {
  const all = { ...options, help }
  const rows = Object.entries(all).map(([name, { value, help }]) => [`  --${name}${value ? ` ${value}` : ''}`, help])
  const needed = Object.entries(options).filter(([, { isNeeded }]) => isNeeded).map(([name, { value }]) => `--${name} ${value}`)
  return `${summary}\n\nUsage: sipher-sessions ${[name, ...positionals, ...needed].join(' ')} [options]\n\n${table(rows)}`
}

/** Rows as lines, their columns under each other. */
export function table (rows: string[][]): string {
  const widths: number[] = []
  for (const row of rows) row.forEach((cell, i) => { widths[i] = Math.max(widths[i] ?? 0, cell.length) })
  return rows.map(row => row.map((cell, i) => cell.padEnd(widths[i]!)).join('  ').trimEnd() + '\n').join('')
}
