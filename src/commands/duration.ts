import { UsageError } from './command.js'

const units: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 }

/**
 * Seconds of a duration such as `90s`, `15m`, `1h` or `90d`.
 *
 * @throws UsageError
 */
export function parseDuration (option: string, text: string): number {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? []
  if (count === undefined) throw new UsageError(`--${option} takes a duration such as 90s, 15m, 1h or 90d, not ${JSON.stringify(text)}.`)
  return Number(count) * units[unit!]!
}
