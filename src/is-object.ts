/** Whether a value has properties: an object or a list. */
export function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

/** Whether it is an object, and no list. */
export function isRecord (value: unknown): value is Record<string, unknown> {
  return isObject(value) && !Array.isArray(value)
}
