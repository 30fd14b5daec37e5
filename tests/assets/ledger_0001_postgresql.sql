CREATE FUNCTION public.refuse_job_events_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = OLD.job_id) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'job_events is append-only';
END
$$;
CREATE TABLE public.cancel_intents (
    job_id text NOT NULL COLLATE pg_catalog."C",
    requested_at bigint NOT NULL,
    actor text,
    reason text
);
CREATE TABLE public.job_events (
    seq bigint NOT NULL,
    job_id text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    at bigint NOT NULL,
    recorded_at bigint NOT NULL,
    event text NOT NULL
);
CREATE SEQUENCE public.job_events_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.job_events_seq_seq OWNED BY public.job_events.seq;
CREATE TABLE public.job_log (
    seq bigint NOT NULL,
    job_id text NOT NULL COLLATE pg_catalog."C",
    recorded_at bigint NOT NULL,
    event text NOT NULL
);
CREATE SEQUENCE public.job_log_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.job_log_seq_seq OWNED BY public.job_log.seq;
CREATE TABLE public.job_snapshots (
    job_id text NOT NULL COLLATE pg_catalog."C",
    rank integer NOT NULL,
    sealed text NOT NULL,
    digest text NOT NULL,
    size bigint NOT NULL,
    key_fingerprint text NOT NULL
);
CREATE TABLE public.jobledger_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.jobs (
    job_id text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    status text NOT NULL,
    worker_id text,
    completed_at bigint,
    facts_rank integer NOT NULL,
    task text,
    queue text,
    priority bigint,
    payload_summary text,
    tags text,
    group_id text,
    retry_of text,
    root_id text,
    overrides text,
    cancel_grace double precision,
    snapshot_problem text,
    requeue bigint NOT NULL,
    retries bigint NOT NULL,
    handed_over boolean NOT NULL,
    started_at bigint,
    attempt_started boolean NOT NULL,
    run_id text,
    run_worker_id text,
    run_boot_id text,
    next_attempt_at bigint,
    retry_error text,
    retry_error_requeue bigint,
    retry_error_retries bigint,
    published boolean NOT NULL,
    uncertain boolean NOT NULL,
    end_status text,
    end_at bigint,
    end_requeue bigint,
    end_retries bigint,
    end_evidence integer,
    end_run_id text,
    end_worker_id text,
    end_detail text,
    end_failure_kind text,
    end_error_type text,
    end_error_message text,
    end_traceback text,
    end_result_ref text,
    end_runtime double precision,
    end_provisional boolean,
    cancel_requested_at bigint,
    cancel_actor text,
    cancel_reason text,
    cancel_delivered_at bigint,
    cancel_obstacle text,
    progress_done double precision,
    progress_total double precision,
    progress_text text,
    progress_at bigint
);
CREATE TABLE public.journals (
    name text NOT NULL COLLATE pg_catalog."C",
    "offset" bigint NOT NULL,
    dropped bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE TABLE public.leases (
    name text NOT NULL COLLATE pg_catalog."C",
    holder text,
    fence bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE TABLE public.nodes (
    boot_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    host text NOT NULL,
    home text NOT NULL,
    pid bigint NOT NULL,
    pool text NOT NULL,
    concurrency bigint NOT NULL,
    queues text NOT NULL,
    versions text NOT NULL,
    started_at bigint NOT NULL,
    heartbeat bigint NOT NULL,
    heartbeat_at bigint,
    ended_at bigint,
    ended_how text
);
CREATE TABLE public.poison_lines (
    journal text NOT NULL COLLATE pg_catalog."C",
    "offset" bigint NOT NULL,
    line bytea NOT NULL,
    reason text NOT NULL,
    recorded_at bigint NOT NULL
);
ALTER TABLE ONLY public.job_events ALTER COLUMN seq SET DEFAULT nextval('public.job_events_seq_seq'::regclass);
ALTER TABLE ONLY public.job_log ALTER COLUMN seq SET DEFAULT nextval('public.job_log_seq_seq'::regclass);
INSERT INTO public.cancel_intents VALUES ('0199f000-0000-7000-8000-000000000003', 1767323075678901, 'eva', 'enough');
INSERT INTO public.job_events VALUES (1, '0199f000-0000-7000-8000-000000000000', 'submitted', 1767323045678901, 1795317133055243, '{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000000","at":"2026-01-02T03:04:05.678901Z","source":"test","facts":{"task":"shop.bill","queue":"celery","priority":5,"payload_summary":"order 1000","group_id":"batch-7"}}');
INSERT INTO public.job_events VALUES (2, '0199f000-0000-7000-8000-000000000001', 'submitted', 1767323046678901, 1795317133055243, '{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000001","at":"2026-01-02T03:04:06.678901Z","source":"test","facts":{"task":"shop.ship","queue":"celery","priority":5,"payload_summary":"order 1001","tags":["night","eu"],"group_id":"batch-7"}}');
INSERT INTO public.job_events VALUES (3, '0199f000-0000-7000-8000-000000000002', 'submitted', 1767323047678901, 1795317133055243, '{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:07.678901Z","source":"test","facts":{"task":"shop.bill","queue":"celery","priority":5,"payload_summary":"order 1002","group_id":"batch-7"}}');
INSERT INTO public.job_events VALUES (4, '0199f000-0000-7000-8000-000000000003', 'submitted', 1767323048678901, 1795317133055243, '{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:08.678901Z","source":"test","facts":{"task":"shop.ship","queue":"celery","priority":5,"payload_summary":"order 1003"}}');
INSERT INTO public.job_events VALUES (5, '0199f000-0000-7000-8000-000000000004', 'submitted', 1767323049678901, 1795317133055243, '{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000004","at":"2026-01-02T03:04:09.678901Z","source":"test","facts":{"task":"shop.bill","queue":"celery","priority":5,"payload_summary":"order 1004"}}');
INSERT INTO public.job_events VALUES (6, '0199f000-0000-7000-8000-000000000005', 'submitted', 1767323050678901, 1795317133055243, '{"kind":"submitted","job_id":"0199f000-0000-7000-8000-000000000005","at":"2026-01-02T03:04:10.678901Z","source":"test","facts":{"task":"shop.ship","queue":"celery","priority":5,"payload_summary":"order 1005","retry_of":"0199f000-0000-7000-8000-000000000001","root_id":"0199f000-0000-7000-8000-000000000001"}}');
INSERT INTO public.job_events VALUES (7, '0199f000-0000-7000-8000-000000000000', 'handed_over', 1767323055678901, 1795317133055243, '{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000000","at":"2026-01-02T03:04:15.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (8, '0199f000-0000-7000-8000-000000000000', 'started', 1767323055778901, 1795317133055243, '{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000000","at":"2026-01-02T03:04:15.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (9, '0199f000-0000-7000-8000-000000000001', 'handed_over', 1767323056678901, 1795317133055243, '{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000001","at":"2026-01-02T03:04:16.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (10, '0199f000-0000-7000-8000-000000000001', 'started', 1767323056778901, 1795317133055243, '{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000001","at":"2026-01-02T03:04:16.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (11, '0199f000-0000-7000-8000-000000000002', 'handed_over', 1767323057678901, 1795317133055243, '{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:17.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (12, '0199f000-0000-7000-8000-000000000002', 'started', 1767323057778901, 1795317133055243, '{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:17.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (13, '0199f000-0000-7000-8000-000000000003', 'handed_over', 1767323058678901, 1795317133055243, '{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:18.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (14, '0199f000-0000-7000-8000-000000000003', 'started', 1767323058778901, 1795317133055243, '{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:18.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (15, '0199f000-0000-7000-8000-000000000004', 'handed_over', 1767323059678901, 1795317133055243, '{"kind":"handed_over","job_id":"0199f000-0000-7000-8000-000000000004","at":"2026-01-02T03:04:19.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (16, '0199f000-0000-7000-8000-000000000004', 'started', 1767323059778901, 1795317133055243, '{"kind":"started","job_id":"0199f000-0000-7000-8000-000000000004","at":"2026-01-02T03:04:19.778901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711}');
INSERT INTO public.job_events VALUES (17, '0199f000-0000-7000-8000-000000000000', 'ended', 1767323065678901, 1795317133055243, '{"kind":"ended","job_id":"0199f000-0000-7000-8000-000000000000","at":"2026-01-02T03:04:25.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711,"end":{"status":"COMPLETED","at":"2026-01-02T03:04:25.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","result_ref":"{\"rows\": 3}","runtime":9.9}}');
INSERT INTO public.job_events VALUES (18, '0199f000-0000-7000-8000-000000000001', 'ended', 1767323066678901, 1795317133055243, '{"kind":"ended","job_id":"0199f000-0000-7000-8000-000000000001","at":"2026-01-02T03:04:26.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711,"end":{"status":"FAILED","at":"2026-01-02T03:04:26.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","failure_kind":"exception","error_type":"ValueError","error_message":"no such order: 1001","traceback":"Traceback (most recent call last):\n  File \"/srv/shop/ship.py\", line 12, in ship\n    raise ValueError(number)\nValueError: no such order: 1001\n"}}');
INSERT INTO public.job_events VALUES (19, '0199f000-0000-7000-8000-000000000002', 'cancel_requested', 1767323060678901, 1795317133055243, '{"kind":"cancel_requested","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:20.678901Z","actor":"eva","reason":"wrong customer"}');
INSERT INTO public.job_events VALUES (20, '0199f000-0000-7000-8000-000000000002', 'ended', 1767323067678901, 1795317133055243, '{"kind":"ended","job_id":"0199f000-0000-7000-8000-000000000002","at":"2026-01-02T03:04:27.678901Z","run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","boot_id":"0199f000-0000-7000-a000-000000000001","pid":4711,"end":{"status":"CANCELLED","at":"2026-01-02T03:04:27.678901Z","evidence":1,"run_id":"0199f000-0000-7000-9000-000000000001","worker_id":"node1@test","detail":"its process was killed (9)"}}');
INSERT INTO public.job_events VALUES (21, '0199f000-0000-7000-8000-000000000003', 'cancel_requested', 1767323075678901, 1795317133079195, '{"kind":"cancel_requested","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:35.678901Z","source":"cancel_job","actor":"eva","reason":"enough"}');
INSERT INTO public.job_log VALUES (1, '0199f000-0000-7000-8000-000000000003', 1795317133055243, '{"kind":"log","job_id":"0199f000-0000-7000-8000-000000000003","at":"2026-01-02T03:04:22.678901Z","text":"three rows so far"}');
INSERT INTO public.job_snapshots VALUES ('0199f000-0000-7000-8000-000000000000', 3, 'gAAAA-sealed', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', 42, '0badc0de');
INSERT INTO public.job_snapshots VALUES ('0199f000-0000-7000-8000-000000000001', 3, 'gAAAA-sealed', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', 42, '0badc0de');
INSERT INTO public.jobledger_version VALUES ('0001');
INSERT INTO public.jobs VALUES ('0199f000-0000-7000-8000-000000000000', 1767323045678901, 'COMPLETED', 'node1@test', 1767323065678901, 3, 'shop.bill', 'celery', 5, 'order 1000', '[]', 'batch-7', NULL, NULL, NULL, NULL, NULL, 0, 0, true, 1767323055778901, true, '0199f000-0000-7000-9000-000000000001', 'node1@test', '0199f000-0000-7000-a000-000000000001', NULL, NULL, NULL, NULL, false, false, 'COMPLETED', 1767323065678901, 0, 0, 2, '0199f000-0000-7000-9000-000000000001', 'node1@test', NULL, NULL, NULL, NULL, NULL, '{"rows": 3}', 9.9, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('0199f000-0000-7000-8000-000000000001', 1767323046678901, 'FAILED', 'node1@test', 1767323066678901, 3, 'shop.ship', 'celery', 5, 'order 1001', '["night","eu"]', 'batch-7', NULL, NULL, NULL, NULL, NULL, 0, 0, true, 1767323056778901, true, '0199f000-0000-7000-9000-000000000001', 'node1@test', '0199f000-0000-7000-a000-000000000001', NULL, NULL, NULL, NULL, false, false, 'FAILED', 1767323066678901, 0, 0, 2, '0199f000-0000-7000-9000-000000000001', 'node1@test', NULL, 'exception', 'ValueError', 'no such order: 1001', 'Traceback (most recent call last):
  File "/srv/shop/ship.py", line 12, in ship
    raise ValueError(number)
ValueError: no such order: 1001
', NULL, NULL, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('0199f000-0000-7000-8000-000000000002', 1767323047678901, 'CANCELLED', 'node1@test', 1767323067678901, 3, 'shop.bill', 'celery', 5, 'order 1002', '[]', 'batch-7', NULL, NULL, NULL, NULL, NULL, 0, 0, true, 1767323057778901, true, '0199f000-0000-7000-9000-000000000001', 'node1@test', '0199f000-0000-7000-a000-000000000001', NULL, NULL, NULL, NULL, false, false, 'CANCELLED', 1767323067678901, 0, 0, 1, '0199f000-0000-7000-9000-000000000001', 'node1@test', 'its process was killed (9)', NULL, NULL, NULL, NULL, NULL, NULL, false, 1767323060678901, 'eva', 'wrong customer', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('0199f000-0000-7000-8000-000000000004', 1767323049678901, 'RUNNING', 'node1@test', NULL, 3, 'shop.bill', 'celery', 5, 'order 1004', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, true, 1767323059778901, true, '0199f000-0000-7000-9000-000000000001', 'node1@test', '0199f000-0000-7000-a000-000000000001', NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('0199f000-0000-7000-8000-000000000005', 1767323050678901, 'QUEUED', NULL, NULL, 3, 'shop.ship', 'celery', 5, 'order 1005', '[]', NULL, '0199f000-0000-7000-8000-000000000001', '0199f000-0000-7000-8000-000000000001', NULL, NULL, NULL, 0, 0, false, NULL, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('0199f000-0000-7000-8000-000000000003', 1767323048678901, 'RUNNING', 'node1@test', NULL, 3, 'shop.ship', 'celery', 5, 'order 1003', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, true, 1767323058778901, true, '0199f000-0000-7000-9000-000000000001', 'node1@test', '0199f000-0000-7000-a000-000000000001', NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1767323075678901, 'eva', 'enough', NULL, NULL, 3, 10, 'rows', 1767323061678901);
INSERT INTO public.journals VALUES ('0199f000-0000-7000-a000-000000000001.0199f000-0000-7000-b000-000000000001', 4096, 2, 1795317133044862);
INSERT INTO public.leases VALUES ('leader', 'somebody', 1, 1795317148089339);
INSERT INTO public.nodes VALUES ('0199f000-0000-7000-a000-000000000001', 'node1@test', 'worker1', '0199f000-0000-7000-c000-000000000001', 4711, 'prefork', 2, '["celery"]', '{"celery":"5.7.0"}', 1767323045678901, 0, NULL, NULL, NULL);
INSERT INTO public.poison_lines VALUES ('0199f000-0000-7000-a000-000000000001.0199f000-0000-7000-b000-000000000001', 4096, '\x7b68616c66', 'not JSON', 1795317133070779);
SELECT pg_catalog.setval('public.job_events_seq_seq', 21, true);
SELECT pg_catalog.setval('public.job_log_seq_seq', 1, true);
ALTER TABLE ONLY public.cancel_intents
    ADD CONSTRAINT cancel_intents_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY public.job_events
    ADD CONSTRAINT job_events_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.job_log
    ADD CONSTRAINT job_log_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.job_snapshots
    ADD CONSTRAINT job_snapshots_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY public.jobledger_version
    ADD CONSTRAINT jobledger_version_pkey PRIMARY KEY (version_num);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY public.journals
    ADD CONSTRAINT journals_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (boot_id);
ALTER TABLE ONLY public.poison_lines
    ADD CONSTRAINT poison_lines_pkey PRIMARY KEY (journal, "offset");
CREATE INDEX cancel_intents_by_age ON public.cancel_intents USING btree (requested_at, job_id);
CREATE INDEX job_events_by_job ON public.job_events USING btree (job_id, seq);
CREATE INDEX job_log_by_job ON public.job_log USING btree (job_id, seq);
CREATE INDEX jobs_being_cancelled ON public.jobs USING btree (cancel_requested_at, job_id) WHERE ((completed_at IS NULL) AND (cancel_requested_at IS NOT NULL));
CREATE INDEX jobs_by_age ON public.jobs USING btree (created_at, job_id);
CREATE INDEX jobs_by_queue ON public.jobs USING btree (queue, created_at, job_id);
CREATE INDEX jobs_by_status ON public.jobs USING btree (status, created_at, job_id);
CREATE INDEX jobs_by_task ON public.jobs USING btree (task, created_at, job_id);
CREATE INDEX jobs_on_nodes ON public.jobs USING btree (created_at, job_id) WHERE ((completed_at IS NULL) AND (run_boot_id IS NOT NULL));
CREATE TRIGGER job_events_are_append_only BEFORE DELETE OR UPDATE ON public.job_events FOR EACH ROW EXECUTE FUNCTION public.refuse_job_events_change();
CREATE TRIGGER job_events_are_never_emptied BEFORE TRUNCATE ON public.job_events FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_job_events_change();
ALTER TABLE ONLY public.cancel_intents
    ADD CONSTRAINT cancel_intents_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(job_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.job_log
    ADD CONSTRAINT job_log_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(job_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.job_snapshots
    ADD CONSTRAINT job_snapshots_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(job_id) ON DELETE CASCADE;
