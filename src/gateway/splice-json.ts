import { fillDefaults, type Placement } from '../defaults/fill-defaults.js'
import type { SessionDefaultValues } from '../schemas/session.js'

/** An object of the text, as far as the paths reach, by where its first member would go. */
type Places = Map<object, { at: number, names: ReadonlySet<string> }>

/**
 * Fills defaults into a JSON text and leaves each character of it as it is: parsed and written again, a number beyond
 * 2^53 would be another one, and of duplicate keys one would be gone.
 *
 * @param text valid JSON
 */
export function spliceDefaults (text: string, values: SessionDefaultValues, placements: readonly Placement[]): { text: string, filled: Placement[] } {
  const places: Places = new Map()
  const depth = Math.max(...placements.map(({ path }) => path.length))
  const filled = fillDefaults(outline(text, depth, places), values, placements)
  let result = ''
  let copied = 0
  for (const [object, { at, names }] of [...places].sort(([, a], [, b]) => a.at - b.at)) {
    const added = Object.entries(object).filter(([name]) => !names.has(name))
    if (added.length === 0) continue
    const members = added.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')
    // First, so that a reader who takes the last of two names that it holds for one (`Chain`) takes the caller's.
    result += text.slice(copied, at) + members + (names.size === 0 ? '' : ',')
    copied = at
  }
  return { text: result + text.slice(copied), filled }
}

/** The objects and arrays of a valid JSON text down to a depth, with something that is neither for everything else. */
function outline (text: string, maxDepth: number, places: Places): unknown {
  let i = 0

  function skipSpace (): void {
    while (/[ \t\n\r]/.test(text.charAt(i))) i++
  }

  /** Also a key of the text; of one with escapes the JSON parser knows what they mean. */
  function skipString (): void {
    i++
    while (text[i] !== '"') i += text[i] === '\\' ? 2 : 1
    i++
  }

  /** Without recursion: what is skipped may be nested however deep. */
  function skipValue (): null {
    let depth = 0
    do {
      const character = text[i]!
      if (character === '"') {
        skipString()
      } else {
        if (character === '{' || character === '[') depth++
        else if (character === '}' || character === ']') depth--
        i++
      }
    } while (depth > 0)
    // Of a number or a word the rest.
    while (i < text.length && !/[,\]}\s]/.test(text[i]!)) i++
    return null
  }

  function readValue (depth: number): unknown {
    skipSpace()
    if (depth === maxDepth || (text[i] !== '{' && text[i] !== '[')) return skipValue()
    return text[i] === '{' ? readObject(depth) : readArray(depth)
  }

  function readObject (depth: number): object {
    // Without a prototype `__proto__` is a name like any other.
    const object = Object.create(null) as Record<string, unknown>
    const at = ++i
    skipSpace()
    while (text[i] !== '}') {
      const start = i
      skipString()
      const key = text.slice(start, i)
      const name = key.includes('\\') ? JSON.parse(key) as string : key.slice(1, -1)
      skipSpace()
      i++ // the colon
      object[name] = readValue(depth + 1)
      skipSeparator()
    }
    i++
    places.set(object, { at, names: new Set(Object.keys(object)) })
    return object
  }

  function readArray (depth: number): unknown[] {
    const items: unknown[] = []
    i++
    skipSpace()
    while (text[i] !== ']') {
      items.push(readValue(depth + 1))
      skipSeparator()
    }
    i++
    return items
  }

  function skipSeparator (): void {
    skipSpace()
    if (text[i] === ',') i++
    skipSpace()
  }

  return readValue(0)
}
