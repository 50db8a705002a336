/** TEMPORARY stub by the lead: overwrite freely. */
export const createPublishDoor = (..._: any[]): any => () => new Response('stub')
export const createBroadcastDoor = createPublishDoor
export const createHistoryDoor = createPublishDoor
