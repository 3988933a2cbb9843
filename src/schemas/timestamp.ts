import { Type } from '@sinclair/typebox'

/** Milliseconds since the epoch, by the database's clock. */
export function timestamp (description: string, example = 1789551600000) {
  // Up to the last moment of the year 9999: what is later PostgreSQL may not take. Generators make 32 bits of an integer without a format.
  return Type.Integer({ format: 'int64', minimum: 0, maximum: 253_402_300_799_999, description: `${description} In milliseconds since the epoch.`, examples: [example] })
}
