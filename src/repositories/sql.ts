import { validationError, type ApiError } from '../errors.js'
import { advisoryLocks } from '../postgres/advisory-locks.js'
import { isDatabaseError } from '../postgres/database-error.js'

/**
 * SQL of a time as milliseconds since the epoch, whole ones, as a number: int8 would arrive as text, and the numeric that
 * `extract` makes takes several times as long. By way of whole microseconds, so that nothing is lost to the rounding of
 * float8: exact beyond the year 2100.
 */
export const milliseconds = (time: string) => `floor(round(date_part('epoch', ${time}) * 1000000) / 1000)`

/** SQL of whether a time is at or after the milliseconds of a parameter; null is before all. */
export const isFrom = (time: string, parameter: string) => `${time} >= coalesce(to_timestamp(${parameter}::float8 / 1000), '-infinity')`

/**
 * A parameter of type bytea[], of bytes as PostgreSQL writes them: `\x` and hex digits. As text, which costs a request less
 * than the driver's way from hex digits to a buffer and back.
 */
export function byteaArray (bytes: readonly string[]): string {
  return `{${bytes.map(text => `"\\${text}"`).join()}}`
}

/** A parameter of numbers or booleans, as text likewise: the driver would look through each for what has to be escaped. */
export function scalarArray (values: readonly (number | boolean)[]): string {
  return `{${values.join()}}`
}

/**
 * SQL of a condition that is true for one transaction at a time, whichever instance's it is: for statements that remove what
 * has expired. An instance that finds another at it leaves the rows to that one, so that however many there are, Postgres is
 * as busy with them as one keeps it. The lock ends with the transaction, as a pooler needs it to.
 */
export const onlyOneSweeps = `(select pg_try_advisory_xact_lock(${advisoryLocks.sweep}))`

/** What a statement of a sweep has removed. */
export interface Swept {
  count: number
  /**
   * Where the last of the rows was in the order in which they go; null if there was none. A later statement of the sweep may
   * begin there: before it the index still has the rows that are gone, until Postgres vacuums, and to look through them takes
   * longer than to remove a batch once there are many.
   */
  last: unknown
}

/** Whether a value itself cannot be stored, such as text with a NUL or half a surrogate pair: SQLSTATE class 22. */
export function isUnstorable (error: unknown): boolean {
  return isDatabaseError(error) && error.code?.startsWith('22') === true
}

/** Turns the refusal of a value that cannot be stored into the caller's error. */
export async function rejectUnstorable<T> (field: string, statement: Promise<T>): Promise<T> {
  try {
    return await statement
  } catch (error) {
    throw isUnstorable(error) ? unstorable(field) : error
  }
}

export function unstorable (field: string): ApiError {
  return validationError('body', [{ field, reason: 'holds a character that cannot be stored (NUL or half a surrogate pair)' }])
}

/**
 * An array that a statement with a name is given, by a subquery, so that its length is not known when it is planned. For one of
 * a single element the plan would seem the cheaper for knowing that, and Postgres would make a new one for each request rather
 * than keep one.
 *
 * @param parameter and its type: SQL
 */
export function opaque (parameter: string): string {
  return `(select ${parameter})`
}
