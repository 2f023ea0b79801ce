-- What the columns of the views mean, for whoever looks into the catalogue.

comment on column :SCHEMA.runs.id is 'The run''s id, unique in the schema.';
comment on column :SCHEMA.runs.workflow is 'The name of the workflow.';
comment on column :SCHEMA.runs.version is 'The version that the run was started on and stays on.';
comment on column :SCHEMA.runs.state is 'pending, running, suspended, paused, blocked, completed, failed or cancelled.';
comment on column :SCHEMA.runs.waiting_for is 'What a suspended run waits for: sleep, event, child, retry or several; start: a delayed one. Null: nothing.';
comment on column :SCHEMA.runs.reason is 'Why it is blocked, was cancelled or does not go on.';
comment on column :SCHEMA.runs.queue is 'The queue that it lines up in.';
comment on column :SCHEMA.runs.priority is 'Lower first.';
comment on column :SCHEMA.runs.attempt is 'Which attempt of the whole workflow this is, from 1.';
comment on column :SCHEMA.runs.parent_id is 'The run that started it as a child.';
comment on column :SCHEMA.runs.created_at is 'When it was started.';
comment on column :SCHEMA.runs.started_at is 'When a worker first took it.';
comment on column :SCHEMA.runs.finished_at is 'When it completed, failed or was cancelled.';
comment on column :SCHEMA.runs.due is 'When its next timer makes it claimable.';
comment on column :SCHEMA.runs.worker is 'The id of the worker that has it in work.';
comment on column :SCHEMA.runs.epoch is 'How often it was taken into work.';
comment on column :SCHEMA.runs.tags is 'The labels that its start gave it.';

comment on column :SCHEMA.steps.run_id is 'The id of the run.';
comment on column :SCHEMA.steps.slot is 'The key of the call in its run: its address and the how many-eth such call.';
comment on column :SCHEMA.steps.kind is 'step, transaction, sleep, event and so on.';
comment on column :SCHEMA.steps.name is 'The name of the step, or what is waited for.';
comment on column :SCHEMA.steps.attempts is 'How often it was tried.';
comment on column :SCHEMA.steps.started_at is 'When the last try, or the wait, began.';
comment on column :SCHEMA.steps.finished_at is 'When its outcome was recorded. Null: it has none yet.';
comment on column :SCHEMA.steps.outcome is 'completed, failed, timeout, waiting or running.';
comment on column :SCHEMA.steps.run_attempt is 'In which attempt of the whole workflow.';

comment on column :SCHEMA.events.id is 'The event''s id; grows in the order in which a run received its events.';
comment on column :SCHEMA.events.run_id is 'The id of the run it was sent to.';
comment on column :SCHEMA.events.name is 'The name of the event.';
comment on column :SCHEMA.events.reference is 'What the sender called it; a second of that reference was dropped.';
comment on column :SCHEMA.events.sent_at is 'When it was sent.';
comment on column :SCHEMA.events.consumed_by is 'The slot of the wait that took it. Null: it is unread.';

comment on column :SCHEMA.workers.id is 'The worker''s id, random for each start of a process.';
comment on column :SCHEMA.workers.name is 'Its host and process.';
comment on column :SCHEMA.workers.started_at is 'When it was launched.';
comment on column :SCHEMA.workers.beat_at is 'Its last heartbeat.';
comment on column :SCHEMA.workers.lease is 'How long after a heartbeat it keeps its runs.';
comment on column :SCHEMA.workers.dead_at is 'When it left, or was found dead.';
comment on column :SCHEMA.workers.leads is 'Whether it does the upkeep.';
comment on column :SCHEMA.workers.runs is 'How many runs it has in work.';

comment on column :SCHEMA.queues.queue is 'The name of the queue.';
comment on column :SCHEMA.queues.ready is 'How many runs a worker could take now.';
comment on column :SCHEMA.queues.delayed is 'How many runs begin, or are tried again, later.';
comment on column :SCHEMA.queues.running is 'How many runs are in work.';
comment on column :SCHEMA.queues.suspended is 'How many runs wait for something.';
comment on column :SCHEMA.queues.paused is 'How many runs were paused.';
comment on column :SCHEMA.queues.blocked is 'How many runs wait for a person or a deploy.';
comment on column :SCHEMA.queues.oldest_ready_at is 'Since when the run that waits longest could be taken.';
comment on column :SCHEMA.queues.workers is 'How many live workers serve it.';

comment on column :SCHEMA.timeline.run_id is 'The id of the run.';
comment on column :SCHEMA.timeline.no is 'Its place among what happened to the run, from 1.';
comment on column :SCHEMA.timeline.at is 'When it happened.';
comment on column :SCHEMA.timeline.what is 'created, started, began, completed, failed, timeout, try failed, sent, attempt failed, or the state in which the run ended.';
comment on column :SCHEMA.timeline.kind is 'Of what: step, transaction, sleep, event and so on. Null: of the run itself.';
comment on column :SCHEMA.timeline.name is 'The name of the step or event, or what is waited for.';
comment on column :SCHEMA.timeline.slot is 'The slot of the call; of an event, of the wait that took it.';
comment on column :SCHEMA.timeline.attempt is 'In which attempt of the whole workflow.';

comment on column :SCHEMA.schedules.name is 'The name of the schedule.';
comment on column :SCHEMA.schedules.application is 'Whose code declares it. Null: it was made at run time.';
comment on column :SCHEMA.schedules.cron is 'Its times as a cron expression. Null: it has an interval.';
comment on column :SCHEMA.schedules.timezone is 'The zone whose clocks the expression means.';
comment on column :SCHEMA.schedules.every is 'Its interval. Null: it has a cron expression.';
comment on column :SCHEMA.schedules.workflow is 'The workflow that it starts.';
comment on column :SCHEMA.schedules.version is 'In which version.';
comment on column :SCHEMA.schedules.queue is 'The queue that its runs line up in.';
comment on column :SCHEMA.schedules.priority is 'Of its runs; lower first.';
comment on column :SCHEMA.schedules.overlap is 'What happens while a run is unfinished: skip, allow or cancel_previous.';
comment on column :SCHEMA.schedules.catch_up is 'Which slots are made up that nobody was there for: latest, none or all.';
comment on column :SCHEMA.schedules.next_at is 'Its next slot. Null while paused.';
comment on column :SCHEMA.schedules.last_slot is 'The last slot that started a run.';
comment on column :SCHEMA.schedules.last_run_id is 'The id of the last run.';
comment on column :SCHEMA.schedules.paused is 'Whether it is paused.';
comment on column :SCHEMA.schedules.trouble is 'Why it could not be fired at its last slot; it is tried again.';
comment on column :SCHEMA.schedules.created_at is 'When it was made.';
comment on column :SCHEMA.schedules.updated_at is 'When it was changed, paused or resumed last.';

comment on column :SCHEMA.schedule_history.id is 'Grows with time.';
comment on column :SCHEMA.schedule_history.schedule is 'The name of the schedule.';
comment on column :SCHEMA.schedule_history.what is 'added, changed, removed, paused, resumed, skipped, missed or taken.';
comment on column :SCHEMA.schedule_history.application is 'Whose launch changed it.';
comment on column :SCHEMA.schedule_history.from_slot is 'The first slot that this is about.';
comment on column :SCHEMA.schedule_history.until_slot is 'The last slot that this is about.';
comment on column :SCHEMA.schedule_history.run_id is 'The run that was unfinished, or that had the id of the slot.';
comment on column :SCHEMA.schedule_history.at is 'When it was written.';
