BEGIN TRANSACTION;
CREATE TABLE cancel_intents (
	job_id TEXT NOT NULL, 
	requested_at BIGINT NOT NULL, 
	actor TEXT, 
	reason TEXT, 
	PRIMARY KEY (job_id), 
	FOREIGN KEY(job_id) REFERENCES jobs (job_id) ON DELETE CASCADE
);
INSERT INTO "cancel_intents" VALUES('0199f000-0000-7000-8000-000000000003',1767323075678901,'eva','enough');
CREATE TABLE job_events (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	event TEXT NOT NULL
);
INSERT INTO "job_events" VALUES(1,'0199f000-0000-7000-8000-000000000000','submitted',1767323045678901,1795317132009557,'{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000000","at":"2026-01-02T03:04:05.678901Z","source":"test","facts":{"task":"shop.bill","queue":"celery","priority":5,"payload_summary":"order 1000","group_id":"batch-7"}}');
INSERT INTO "job_events" VALUES(2,'0199f000-0000-7000-8000-000000000001','submitted',1767323046678901,1795317132009557,'{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000001","at":"2026-01-02T03:04:06.678901Z","source":"test","facts":{"task":"shop.ship","queue":"celery","priority":5,"payload_summary":"order 1001","tags":["night","eu"],"group_id":"batch-7"}}');
INSERT INTO "job_events" VALUES(3,'0199f000-0000-7000-8000-000000000002','submitted',1767323047678901,1795317132009557,'{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:07.678901Z","source":"test","facts":{"task":"shop.bill","queue":"celery","priority":5,"payload_summary":"order 1002","group_id":"batch-7"}}');
INSERT INTO "job_events" VALUES(4,'0199f000-0000-7000-8000-000000000003','submitted',1767323048678901,1795317132009557,'{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:08.678901Z","source":"test","facts":{"task":"shop.ship","queue":"celery","priority":5,"payload_summary":"order 1003"}}');
INSERT INTO "job_events" VALUES(5,'0199f000-0000-7000-8000-000000000004','submitted',1767323049678901,1795317132009557,'{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000004","at":"2026-01-02T03:04:09.678901Z","source":"test","facts":{"task":"shop.bill","queue":"celery","priority":5,"payload_summary":"order 1004"}}');
INSERT INTO "job_events" VALUES(6,'0199f000-0000-7000-8000-000000000005','submitted',1767323050678901,1795317132009557,'{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000005","at":"2026-01-02T03:04:10.678901Z","source":"test","facts":{"task":"shop.ship","queue":"celery","priority":5,"payload_summary":"order 1005","retry_of":"0199f000-0000-7000-8000-000000000001","root_id":"0199f000-0000-7000-8000-000000000001"}}');
INSERT INTO "job_events" VALUES(7,'0199f000-0000-7000-8000-000000000000','handed_over',1767323055678901,1795317132009557,'{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000000","at":"2026-01-02T03:04:15.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(8,'0199f000-0000-7000-8000-000000000000','started',1767323055778901,1795317132009557,'{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000000","at":"2026-01-02T03:04:15.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(9,'0199f000-0000-7000-8000-000000000001','handed_over',1767323056678901,1795317132009557,'{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000001","at":"2026-01-02T03:04:16.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(10,'0199f000-0000-7000-8000-000000000001','started',1767323056778901,1795317132009557,'{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000001","at":"2026-01-02T03:04:16.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(11,'0199f000-0000-7000-8000-000000000002','handed_over',1767323057678901,1795317132009557,'{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:17.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(12,'0199f000-0000-7000-8000-000000000002','started',1767323057778901,1795317132009557,'{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:17.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(13,'0199f000-0000-7000-8000-000000000003','handed_over',1767323058678901,1795317132009557,'{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:18.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(14,'0199f000-0000-7000-8000-000000000003','started',1767323058778901,1795317132009557,'{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:18.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(15,'0199f000-0000-7000-8000-000000000004','handed_over',1767323059678901,1795317132009557,'{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000004","at":"2026-01-02T03:04:19.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(16,'0199f000-0000-7000-8000-000000000004','started',1767323059778901,1795317132009557,'{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000004","at":"2026-01-02T03:04:19.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO "job_events" VALUES(17,'0199f000-0000-7000-8000-000000000000','ended',1767323065678901,1795317132009557,'{"kind":"ended","job_id":"0199f000-0000-7000-8000-000000000000","at":"2026-01-02T03:04:25.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711,"end":{"status":"COMPLETED","at":"2026-01-02T03:04:25.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","result_ref":"{\"rows\": 3}","runtime":9.9}}');
INSERT INTO "job_events" VALUES(18,'0199f000-0000-7000-8000-000000000001','ended',1767323066678901,1795317132009557,'{"kind":"ended","job_id":"0199f000-0000-7000-8000-000000000001","at":"2026-01-02T03:04:26.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711,"end":{"status":"FAILED","at":"2026-01-02T03:04:26.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","failure_kind":"exception","error_type":"ValueError","error_message":"no such order: 1001","traceback":"Traceback (most recent call last):\n  File \"/srv/shop/ship.py\", line 12, in ship\n    raise ValueError(number)\nValueError: no such order: 1001\n"}}');
INSERT INTO "job_events" VALUES(19,'0199f000-0000-7000-8000-000000000002','cancel_requested',1767323060678901,1795317132009557,'{"kind":"cancel_requested","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:20.678901Z","actor":"eva","reason":"wrong customer"}');
INSERT INTO "job_events" VALUES(20,'0199f000-0000-7000-8000-000000000002','ended',1767323067678901,1795317132009557,'{"kind":"ended","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:27.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711,"end":{"status":"CANCELLED","at":"2026-01-02T03:04:27.678901Z","evidence":1,"run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","detail":"its process was killed (9)"}}');
INSERT INTO "job_events" VALUES(21,'0199f000-0000-7000-8000-000000000003','cancel_requested',1767323075678901,1795317132023396,'{"kind":"cancel_requested","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:35.678901Z","source":"cancel_job","actor":"eva","reason":"enough"}');
CREATE TABLE job_log (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id TEXT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	event TEXT NOT NULL, 
	FOREIGN KEY(job_id) REFERENCES jobs (job_id) ON DELETE CASCADE
);
INSERT INTO "job_log" VALUES(1,'0199f000-0000-7000-8000-000000000003',1795317132009557,'{"kind":"log","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:22.678901Z","text":"three rows so far"}');
CREATE TABLE job_snapshots (
	job_id TEXT NOT NULL, 
	rank INTEGER NOT NULL, 
	sealed TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	key_fingerprint TEXT NOT NULL, 
	PRIMARY KEY (job_id), 
	FOREIGN KEY(job_id) REFERENCES jobs (job_id) ON DELETE CASCADE
);
INSERT INTO "job_snapshots" VALUES('0199f000-0000-7000-8000-000000000000',3,'gAAAA-sealed','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd',42,'0badc0de');
INSERT INTO "job_snapshots" VALUES('0199f000-0000-7000-8000-000000000001',3,'gAAAA-sealed','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd',42,'0badc0de');
CREATE TABLE jobledger_version (
	version_num VARCHAR(32) NOT NULL, 
	PRIMARY KEY (version_num)
);
INSERT INTO "jobledger_version" VALUES('0001');
CREATE TABLE jobs (
	job_id TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	status TEXT NOT NULL, 
	worker_id TEXT, 
	completed_at BIGINT, 
	facts_rank INTEGER NOT NULL, 
	task TEXT, 
	queue TEXT, 
	priority BIGINT, 
	payload_summary TEXT, 
	tags TEXT, 
	group_id TEXT, 
	retry_of TEXT, 
	root_id TEXT, 
	overrides TEXT, 
	cancel_grace DOUBLE, 
	snapshot_problem TEXT, 
	requeue BIGINT NOT NULL, 
	retries BIGINT NOT NULL, 
	handed_over BOOLEAN NOT NULL, 
	started_at BIGINT, 
	attempt_started BOOLEAN NOT NULL, 
	run_id TEXT, 
	run_worker_id TEXT, 
	run_boot_id TEXT, 
	next_attempt_at BIGINT, 
	retry_error TEXT, 
	retry_error_requeue BIGINT, 
	retry_error_retries BIGINT, 
	published BOOLEAN NOT NULL, 
	uncertain BOOLEAN NOT NULL, 
	end_status TEXT, 
	end_at BIGINT, 
	end_requeue BIGINT, 
	end_retries BIGINT, 
	end_evidence INTEGER, 
	end_run_id TEXT, 
	end_worker_id TEXT, 
	end_detail TEXT, 
	end_failure_kind TEXT, 
	end_error_type TEXT, 
	end_error_message TEXT, 
	end_traceback TEXT, 
	end_result_ref TEXT, 
	end_runtime DOUBLE, 
	end_provisional BOOLEAN, 
	cancel_requested_at BIGINT, 
	cancel_actor TEXT, 
	cancel_reason TEXT, 
	cancel_delivered_at BIGINT, 
	cancel_obstacle TEXT, 
	progress_done DOUBLE, 
	progress_total DOUBLE, 
	progress_text TEXT, 
	progress_at BIGINT, 
	PRIMARY KEY (job_id)
);
INSERT INTO "jobs" VALUES('0199f000-0000-7000-8000-000000000000',1767323045678901,'COMPLETED','node1@test',1767323065678901,3,'shop.bill','celery',5,'order 1000','[]','batch-7',NULL,NULL,NULL,NULL,NULL,0,0,1,1767323055778901,1,'0199f000-0000-7000-9000-000000000001','node1@test','0199f000-0000-7000-a000-000000000001',NULL,NULL,NULL,NULL,0,0,'COMPLETED',1767323065678901,0,0,2,'0199f000-0000-7000-9000-000000000001','node1@test',NULL,NULL,NULL,NULL,NULL,'{"rows": 3}',9.9,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('0199f000-0000-7000-8000-000000000001',1767323046678901,'FAILED','node1@test',1767323066678901,3,'shop.ship','celery',5,'order 1001','["night","eu"]','batch-7',NULL,NULL,NULL,NULL,NULL,0,0,1,1767323056778901,1,'0199f000-0000-7000-9000-000000000001','node1@test','0199f000-0000-7000-a000-000000000001',NULL,NULL,NULL,NULL,0,0,'FAILED',1767323066678901,0,0,2,'0199f000-0000-7000-9000-000000000001','node1@test',NULL,'exception','ValueError','no such order: 1001','Traceback (most recent call last):
  File "/srv/shop/ship.py", line 12, in ship
    raise ValueError(number)
ValueError: no such order: 1001
',NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('0199f000-0000-7000-8000-000000000002',1767323047678901,'CANCELLED','node1@test',1767323067678901,3,'shop.bill','celery',5,'order 1002','[]','batch-7',NULL,NULL,NULL,NULL,NULL,0,0,1,1767323057778901,1,'0199f000-0000-7000-9000-000000000001','node1@test','0199f000-0000-7000-a000-000000000001',NULL,NULL,NULL,NULL,0,0,'CANCELLED',1767323067678901,0,0,1,'0199f000-0000-7000-9000-000000000001','node1@test','its process was killed (9)',NULL,NULL,NULL,NULL,NULL,NULL,0,1767323060678901,'eva','wrong customer',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('0199f000-0000-7000-8000-000000000003',1767323048678901,'RUNNING','node1@test',NULL,3,'shop.ship','celery',5,'order 1003','[]',NULL,NULL,NULL,NULL,NULL,NULL,0,0,1,1767323058778901,1,'0199f000-0000-7000-9000-000000000001','node1@test','0199f000-0000-7000-a000-000000000001',NULL,NULL,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1767323075678901,'eva','enough',NULL,NULL,3.0,10.0,'rows',1767323061678901);
INSERT INTO "jobs" VALUES('0199f000-0000-7000-8000-000000000004',1767323049678901,'RUNNING','node1@test',NULL,3,'shop.bill','celery',5,'order 1004','[]',NULL,NULL,NULL,NULL,NULL,NULL,0,0,1,1767323059778901,1,'0199f000-0000-7000-9000-000000000001','node1@test','0199f000-0000-7000-a000-000000000001',NULL,NULL,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('0199f000-0000-7000-8000-000000000005',1767323050678901,'QUEUED',NULL,NULL,3,'shop.ship','celery',5,'order 1005','[]',NULL,'0199f000-0000-7000-8000-000000000001','0199f000-0000-7000-8000-000000000001',NULL,NULL,NULL,0,0,0,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE journals (
	name TEXT NOT NULL, 
	"offset" BIGINT NOT NULL, 
	dropped BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "journals" VALUES('0199f000-0000-7000-a000-000000000001.0199f000-0000-7000-b000-000000000001',4096,2,1795317132003980);
CREATE TABLE leases (
	name TEXT NOT NULL, 
	holder TEXT, 
	fence BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "leases" VALUES('leader','somebody',1,1795317147031110);
CREATE TABLE nodes (
	boot_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	host TEXT NOT NULL, 
	home TEXT NOT NULL, 
	pid BIGINT NOT NULL, 
	pool TEXT NOT NULL, 
	concurrency BIGINT NOT NULL, 
	queues TEXT NOT NULL, 
	versions TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	heartbeat BIGINT NOT NULL, 
	heartbeat_at BIGINT, 
	ended_at BIGINT, 
	ended_how TEXT, 
	PRIMARY KEY (boot_id)
);
INSERT INTO "nodes" VALUES('0199f000-0000-7000-a000-000000000001','node1@test','worker1','0199f000-0000-7000-c000-000000000001',4711,'prefork',2,'["celery"]','{"celery":"5.7.0"}',1767323045678901,0,NULL,NULL,NULL);
CREATE TABLE poison_lines (
	journal TEXT NOT NULL, 
	"offset" BIGINT NOT NULL, 
	line BLOB NOT NULL, 
	reason TEXT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	PRIMARY KEY (journal, "offset")
);
INSERT INTO "poison_lines" VALUES('0199f000-0000-7000-a000-000000000001.0199f000-0000-7000-b000-000000000001',4096,X'7B68616C66','not JSON',1795317132020100);
CREATE INDEX jobs_being_cancelled ON jobs (cancel_requested_at, job_id) WHERE completed_at IS NULL AND cancel_requested_at IS NOT NULL;
CREATE INDEX jobs_on_nodes ON jobs (created_at, job_id) WHERE completed_at IS NULL AND run_boot_id IS NOT NULL;
CREATE INDEX jobs_by_task ON jobs (task, created_at, job_id);
CREATE INDEX jobs_by_status ON jobs (status, created_at, job_id);
CREATE INDEX jobs_by_queue ON jobs (queue, created_at, job_id);
CREATE INDEX jobs_by_age ON jobs (created_at, job_id);
CREATE INDEX job_events_by_job ON job_events (job_id, seq);
CREATE INDEX job_log_by_job ON job_log (job_id, seq);
CREATE INDEX cancel_intents_by_age ON cancel_intents (requested_at, job_id);
CREATE TRIGGER job_events_are_never_changed BEFORE UPDATE ON job_events
BEGIN SELECT RAISE(ABORT, 'job_events is append-only'); END;
CREATE TRIGGER job_events_stay_with_their_job BEFORE DELETE ON job_events
WHEN EXISTS (SELECT 1 FROM jobs WHERE job_id = OLD.job_id)
BEGIN SELECT RAISE(ABORT, 'job_events is append-only'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('job_events',21);
INSERT INTO "sqlite_sequence" VALUES('job_log',1);
COMMIT;
