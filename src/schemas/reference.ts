import { Type, type Static, type TSchema, type TUnsafe } from '@sinclair/typebox'

/**
 * A reference to a named schema, with the schema's static type. Named schemas become the components of the OpenAPI
 * document; written in place, they would not.
 *
 * @param description of the response, where it is one
 */
export function reference<T extends TSchema> (schema: T, description?: string): TUnsafe<Static<T>> {
  return Type.Unsafe<Static<T>>({ ...Type.Ref(schema.$id!), ...(description && { description }) })
}
