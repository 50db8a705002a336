/** The topic a user's notifications are live on; its `subscribe` rule admits that user alone. */

/** Of an encoded id: a topic's name has at most 255 characters. */
const idLengthMax = 240

/**
 * Null for an id that is too long for a name: such a user reads notifications, but does not hear them. A
 * colon in an id would end the name's segment, so ids are escaped.
 */
export function notificationTopic(userId: string): string | null {
  const id = encodeURIComponent(userId.toWellFormed())
  return id === '' || id.length > idLengthMax ? null : `notifications:${id}`
}
