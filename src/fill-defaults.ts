import { type SessionDefaultValues } from './schemas/session.js'

/**
 * Fills in, in place, the values of those names that the target leaves out. What it has stays, whatever its value:
 * `false`, `0`, `""` and `null` are what somebody meant.
 *
 * @returns the names that were filled in
 */
export function fillDefaults (target: Record<string, unknown>, values: SessionDefaultValues, names: readonly string[]): string[] {
  const filled = names.filter(name => Object.hasOwn(values, name) && !Object.hasOwn(target, name))
  for (const name of filled) target[name] = values[name]
  return filled
}
