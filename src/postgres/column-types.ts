/** What a column's text stands for, by its type's OID in PostgreSQL's catalog; of others it is the text itself. */
const parsers: Readonly<Record<number, (text: string) => unknown>> = {
  16: text => text === 't', // bool
  23: Number, // int4
  701: Number, // float8
  1007: text => JSON.parse(`[${text.slice(1, -1)}]`) as unknown, // int4[], such as {1,2}
  3802: text => JSON.parse(text) as unknown // jsonb
}

/**
 * How the answers of the service's own statements are read. What a program tells the driver (`pg.types.setTypeParser`) it tells it for all
 * that use it: a host that reads numbers or JSON in a way of its own would have the service's read like that as well.
 */
export const columnTypes = {
  getTypeParser: (oid: number) => parsers[oid] ?? ((text: string) => text)
}
