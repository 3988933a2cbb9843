import { ConfigError } from '../config.js'
import { ApiError } from '../errors.js'
import { explainError } from '../explain-error.js'
import { version } from '../package-root.js'
import { commandHelp, parseArguments, table, UsageError, type Command, type Terminal } from './command.js'
import { keysCommands } from './keys.js'
import { migrateCommand } from './migrate.js'
import { rotateEncryptionCommand } from './rotate-encryption.js'

const commands: Command[] = [...keysCommands, migrateCommand, rotateEncryptionCommand]

/**
 * Runs the command line.
 *
 * @returns the exit code: 0 when it did what was asked, 1 when that failed, 2 when the command line was wrong
 */
export async function run (args: string[], terminal: Terminal): Promise<number> {
  let helpFor = ''
  try {
    const command = commands.find(({ name }) => startsWith(args, name.split(' ')))
    if (!command) return overview(args, terminal)
    helpFor = ` ${command.name}`
    const parsed = parseArguments(command, args.slice(command.name.split(' ').length))
    if (!parsed.options.help) return await command.run(parsed, terminal) ?? 0
    terminal.out(commandHelp(command))
    return 0
  } catch (error) {
    if (error instanceof UsageError) {
      terminal.err(`${error.message} See: sipher-sessions${helpFor} --help\n`)
      return 2
    }
    terminal.err(`${describe(error as Error, terminal.environment.DATABASE_URL)}\n`)
    return 1
  }
}

/** Without a command, or with the beginning of some only: which there are. */
function overview (args: string[], { out }: Terminal): number {
  if (args[0] === '--version') {
    out(`${version}\n`)
    return 0
  }
  const words = args.filter(arg => arg !== '--help')
  const listed = commands.filter(({ name }) => startsWith(name.split(' '), words))
  if (listed.length === 0) throw new UsageError(`There is no command ${JSON.stringify(words.join(' '))}.`)
  if (words.length === args.length) throw new UsageError(args.length === 0 ? 'A command is missing.' : `The command ${JSON.stringify(args.join(' '))} is not complete.`)
  out(`Usage: sipher-sessions COMMAND [options]\n\n${table(listed.map(({ name, positionals = [], summary }) => [`  ${[name, ...positionals].join(' ')}`, summary]))}
Each command has its own --help. They use the database of DATABASE_URL; those for keys, without one, the embedded one of DATA_DIR
while a service runs on it.\n`)
  return 0
}

function startsWith (words: string[], beginning: string[]): boolean {
  return beginning.every((word, i) => words[i] === word)
}

/** What the command line calls a field of the API. */
const spoken: Record<string, string> = { expiresAt: 'The expiry' }

/** One sentence: a trace would bury it, and nobody at a terminal reads one. */
function describe (error: Error, databaseUrl: string | undefined): string {
  // What follows in the API's messages is advice for those who call it.
  if (error instanceof ApiError) return error.details?.map(({ field, reason }) => `${spoken[field] ?? field} ${reason}.`).join(' ') ?? error.message.replace(/\. .*/, '.')
  if (error instanceof ConfigError) return error.message
  const explained = explainError(error, databaseUrl)
  return explained === error.stack ? error.message : explained
}
