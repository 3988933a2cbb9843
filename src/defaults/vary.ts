/**
 * The names of the request headers that an answer depends on, for `Vary` (RFC 9110, 12.5.5): each once, as it was first written;
 * `*` where one of the values says so.
 *
 * @param values of `Vary`, as a reply or a message has them
 */
export function mergeVary (...values: unknown[]): string {
  const names = new Map<string, string>()
  for (const text of values.flat().join().split(',')) {
    const name = text.trim()
    if (name !== '' && !names.has(name.toLowerCase())) names.set(name.toLowerCase(), name)
  }
  return names.has('*') ? '*' : [...names.values()].join(', ')
}
