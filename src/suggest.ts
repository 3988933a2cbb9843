import { closest, distance } from 'fastest-levenshtein'

/** `; did you mean "x"?` where one of the names is near what was written, in spelling, case or as a part of it; else nothing. */
export function suggest (written: string, names: readonly string[]): string {
  const plain = (name: string) => name.toLowerCase().replaceAll(/[^a-z0-9]/g, '')
  const wanted = plain(written.slice(0, 100))
  const known = new Map(names.map(name => [plain(name), name]))
  const nearest = closest(wanted, [...known.keys()])
  // Two edits are one transposition; in a name of three letters or fewer they would make it any other.
  const near = wanted.length > 3 ? Math.max(2, Math.floor(wanted.length / 3)) : 1
  const match = nearest && distance(wanted, nearest) <= near
    ? nearest
    : [...known.keys()].find(name => wanted.length >= 3 && (name.includes(wanted) || wanted.includes(name)))
  return match === undefined ? '' : `; did you mean "${known.get(match)}"?`
}
