/**
 * An order waits for the first of three: its parcel arrives (a child workflow), the customer withdraws (an event), or patience runs out (a
 * timer). Who won is recorded, so a replay takes the same branch. What lost is left as it was: the parcel of the third order goes on.
 */
import { type Duration, event, Perdure, race, start, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const withdrawn = event<{ reason: string }>("withdrawn");
const express = event("express");

const deliver = workflow("deliver", async (parcel: string, takes: Duration) => {
  const { winner } = await race({ express, post: takes });
  return `${parcel} came by ${winner}`;
});

const order = workflow("order", async (parcel: string, takes: Duration, patience: Duration) => {
  const delivery = await start(deliver, parcel, takes);
  const first = await race({ withdrawn, delivery, late: patience });
  switch (first.winner) {
    case "delivery":
      return first.value; // what the child returned
    case "withdrawn":
      await delivery.cancel("withdrawn");
      return `${parcel} was not wanted: ${first.value.data.reason}`;
    case "late":
      await delivery.send(express);
      return `late, but ${await delivery.result()}`;
  }
});

await fresh("example_08");
const perdure = new Perdure({ schema: "example_08", workflows: [order, deliver] });
await perdure.launch();

const lamp = await perdure.start(order, "the lamp", "10ms", { days: 14 });
console.log(await lamp.result());

const kettle = await perdure.start(order, "the kettle", { days: 2 }, { days: 14 });
await kettle.send(withdrawn, { reason: "found a cheaper one" });
console.log(await kettle.result());

const chair = await perdure.start(order, "the chair", { days: 30 }, "10ms");
console.log(await chair.result());
await perdure.shutdown();

// Output:
// the lamp came by post
// the kettle was not wanted: found a cheaper one
// late, but the chair came by express
