import { Type, type TUnsafe, type SchemaOptions } from '@sinclair/typebox'

/**
 * A JSON Schema `enum` of strings with its static type.
 *
 * A union of literals would say the same, but prints as `anyOf` in the OpenAPI document, from which client generators
 * make a class per value.
 */
export function stringEnum<const T extends readonly string[]> (values: T, options: SchemaOptions = {}): TUnsafe<T[number]> {
  return Type.Unsafe<T[number]>({ ...options, type: 'string', enum: [...values] })
}
