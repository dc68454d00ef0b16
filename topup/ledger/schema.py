"""What does the ledger remember? The tables, and the steps that brought them here.

`MIGRATIONS[n]` leads from version n to n + 1, each in a transaction of its own; versions only go forward. Integers
that may exceed 64 bits (wei, nonces, lanes) are decimal text or 32-byte blobs, because an SQLite INTEGER cannot
hold them. The database itself enforces what must never happen: a second open top-up of an account, a second
purchase for one wish, a second nonce in flight for a wallet, a nonce used twice, a charge id proven twice, a journal
line changed.
"""

APPEND_ONLY = """
CREATE TRIGGER entry_stays BEFORE DELETE ON entry BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
-- INSERT OR REPLACE deletes without asking the triggers of DELETE.
CREATE TRIGGER entry_once BEFORE INSERT ON entry WHEN EXISTS (SELECT 1 FROM entry WHERE id = NEW.id)
BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER line_once BEFORE INSERT ON line WHEN EXISTS (SELECT 1 FROM line WHERE entry = NEW.entry AND n = NEW.n)
BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER line_stands BEFORE UPDATE ON line BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER line_stays BEFORE DELETE ON line BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
"""

FIRST = """
CREATE TABLE ledger (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  epoch INTEGER NOT NULL,          -- raised by every writer that takes over; each write checks it
  newest_ms INTEGER NOT NULL       -- ledger time never runs backwards
) STRICT;
INSERT INTO ledger VALUES (1, 0, 0);

CREATE TABLE reading (
  id INTEGER PRIMARY KEY,
  account TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  total_credits TEXT,              -- exact decimal dollars; null when the API said nothing usable
  total_usage TEXT,
  doubt TEXT,                      -- null: believed
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX reading_time ON reading (account, at_ms);

CREATE TABLE topup (
  id TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  rail TEXT NOT NULL,
  chain_id INTEGER NOT NULL,
  wallet BLOB NOT NULL,
  state TEXT NOT NULL,
  amount TEXT NOT NULL,            -- dollars of credit
  why TEXT NOT NULL,
  forced INTEGER NOT NULL,
  decided_ms INTEGER NOT NULL,
  moved_ms INTEGER NOT NULL,
  baseline TEXT,                   -- total_credits before signing
  balance_before TEXT,
  wallet_before TEXT,              -- wei
  reason TEXT NOT NULL,
  credited_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX one_open_topup ON topup (account) WHERE state NOT IN ('done', 'dropped', 'failed');
CREATE INDEX topup_time ON topup (account, decided_ms);

CREATE TABLE move (                -- every arrow ever taken
  id INTEGER PRIMARY KEY,
  topup TEXT NOT NULL REFERENCES topup (id),
  at_ms INTEGER NOT NULL,
  fact TEXT NOT NULL,
  state TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX move_topup ON move (topup, id);

CREATE TABLE charge (
  topup TEXT NOT NULL REFERENCES topup (id),
  seq INTEGER NOT NULL,
  account TEXT NOT NULL,
  requested_ms INTEGER NOT NULL,
  answered_ms INTEGER,
  raw BLOB,                        -- the answer, byte for byte
  abandoned TEXT,
  operator BLOB,                   -- set once proven
  intent_id BLOB,
  PRIMARY KEY (topup, seq)
) STRICT;
CREATE UNIQUE INDEX one_charge_per_intent ON charge (operator, intent_id) WHERE intent_id IS NOT NULL;
CREATE INDEX charge_time ON charge (account, requested_ms);

CREATE TABLE slot (                -- a place in the wallet's order of transactions
  chain_id INTEGER NOT NULL,
  address BLOB NOT NULL,
  lane BLOB NOT NULL CHECK (length(lane) = 32),
  nonce BLOB NOT NULL CHECK (length(nonce) = 32),
  topup TEXT NOT NULL REFERENCES topup (id),
  state TEXT NOT NULL CHECK (state IN ('in_flight', 'released', 'used')),
  PRIMARY KEY (chain_id, address, lane, nonce)
) STRICT;
CREATE UNIQUE INDEX one_slot_in_flight ON slot (chain_id, address) WHERE state = 'in_flight';

CREATE TABLE attempt (
  id INTEGER PRIMARY KEY,
  topup TEXT NOT NULL REFERENCES topup (id),
  charge_seq INTEGER NOT NULL,
  chain_id INTEGER NOT NULL,
  address BLOB NOT NULL,
  lane BLOB NOT NULL,
  nonce BLOB NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('pay', 'cancel', 'approve')),
  broadcaster TEXT NOT NULL CHECK (broadcaster IN ('us', 'server')),
  plan TEXT NOT NULL,              -- everything that will be signed, as JSON
  raw BLOB,                        -- the signed bytes; null until signed
  hash BLOB UNIQUE,
  planned_ms INTEGER NOT NULL,
  signed_ms INTEGER,
  intended_ms INTEGER,             -- set before the first byte leaves
  last_sent_ms INTEGER,
  sends INTEGER NOT NULL DEFAULT 0,
  answer TEXT NOT NULL DEFAULT '',
  withdrawn INTEGER NOT NULL DEFAULT 0,
  inclusion TEXT,                  -- the canonical block it stands in, as JSON
  booked INTEGER NOT NULL DEFAULT 0,
  FOREIGN KEY (chain_id, address, lane, nonce) REFERENCES slot (chain_id, address, lane, nonce),
  FOREIGN KEY (topup, charge_seq) REFERENCES charge (topup, seq),
  CHECK (intended_ms IS NULL OR (raw IS NOT NULL AND hash IS NOT NULL)),
  CHECK (withdrawn = 0 OR intended_ms IS NULL)
) STRICT;
CREATE INDEX attempt_topup ON attempt (topup, id);

CREATE TABLE evidence (            -- every look that changed what is known; never deleted
  id INTEGER PRIMARY KEY,
  topup TEXT NOT NULL REFERENCES topup (id),
  attempt INTEGER NOT NULL REFERENCES attempt (id),
  at_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;

CREATE TABLE entry (               -- the journal
  id INTEGER PRIMARY KEY,
  account TEXT NOT NULL,
  topup TEXT NOT NULL REFERENCES topup (id),
  at_ms INTEGER NOT NULL,
  text TEXT NOT NULL,
  tx_hash BLOB,
  charge_id TEXT NOT NULL,
  block_number INTEGER,
  usd_value TEXT,
  price_source TEXT NOT NULL
) STRICT;
CREATE TABLE line (
  entry INTEGER NOT NULL REFERENCES entry (id),
  n INTEGER NOT NULL,
  account TEXT NOT NULL,           -- of the books, such as assets:wallet
  commodity TEXT NOT NULL,
  units TEXT NOT NULL,             -- integer in the commodity's smallest unit
  PRIMARY KEY (entry, n)
) STRICT;
CREATE TRIGGER entry_stands BEFORE UPDATE ON entry BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;

CREATE TABLE control (             -- what people have said; written by any command, obeyed by the one writer
  account TEXT NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  by TEXT NOT NULL,
  PRIMARY KEY (account, name)
) STRICT;
CREATE TABLE request (             -- a purchase asked for beside a running daemon
  id INTEGER PRIMARY KEY,
  account TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  amount TEXT,
  forced INTEGER NOT NULL,
  taken_ms INTEGER,
  topup TEXT,
  outcome TEXT
) STRICT;
"""
FIRST += APPEND_ONLY

SECOND = """
ALTER TABLE charge ADD COLUMN dead TEXT;      -- the proof that it can never be paid; null without one
ALTER TABLE attempt ADD COLUMN final INTEGER NOT NULL DEFAULT 0;  -- nothing on the chain can change for it any more
UPDATE attempt SET final = 1 WHERE booked = 1;
CREATE INDEX attempt_not_final ON attempt (topup) WHERE final = 0 AND intended_ms IS NOT NULL;
-- A reading is asked for either as one that was believed or as one that was not, and stands in one index.
DROP INDEX reading_time;
CREATE INDEX reading_believed ON reading (account, at_ms) WHERE doubt IS NULL;
CREATE INDEX reading_doubted ON reading (account, at_ms) WHERE doubt IS NOT NULL;
CREATE TABLE thinned (             -- up to when readings have been thinned to one in `every_ms`
  account TEXT NOT NULL,
  believed INTEGER NOT NULL,
  every_ms INTEGER NOT NULL,
  until_ms INTEGER NOT NULL,
  PRIMARY KEY (account, believed, every_ms)
) STRICT;
CREATE INDEX topup_moved ON topup (account, moved_ms);
CREATE INDEX evidence_topup ON evidence (topup, id);
CREATE INDEX entry_topup ON entry (topup, id);
CREATE TABLE scan (                -- how far a wallet's payments have been looked for, per operator
  chain_id INTEGER NOT NULL,
  wallet BLOB NOT NULL,
  contract BLOB NOT NULL,
  operator BLOB NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (chain_id, wallet, contract, operator)
) STRICT;
CREATE TABLE transfer (            -- every payment of the wallet that was found there
  chain_id INTEGER NOT NULL,
  wallet BLOB NOT NULL,
  contract BLOB NOT NULL,
  operator BLOB NOT NULL,
  intent_id BLOB NOT NULL,
  recipient BLOB NOT NULL,
  spent TEXT NOT NULL,             -- wei, or units of the token that was paid with
  tx_hash BLOB NOT NULL,
  block_number INTEGER NOT NULL,
  PRIMARY KEY (chain_id, contract, operator, intent_id)
) STRICT;
CREATE TABLE adopted (             -- every transaction that was taken over from the chain, by whom and when
  chain_id INTEGER NOT NULL,
  wallet BLOB NOT NULL,
  nonce BLOB NOT NULL CHECK (length(nonce) = 32),
  tx_hash BLOB,                    -- null: nobody could say what took the nonce
  block_number INTEGER,
  topup TEXT REFERENCES topup (id),  -- null: no payment
  cost TEXT,                       -- wei that left the wallet; null: unknown
  at_ms INTEGER NOT NULL,
  by TEXT NOT NULL,
  PRIMARY KEY (chain_id, wallet, nonce)
) STRICT;
"""

THIRD = """
ALTER TABLE attempt ADD COLUMN reference TEXT NOT NULL DEFAULT '';  -- what the seller calls the purchase
UPDATE control SET name = 'gone:coinbase' WHERE name = 'gone';      -- a tombstone for each rail
"""

# Each entry carries a hash over itself and the one before it, and may belong to no top-up.
FOURTH = """
CREATE TABLE entry_4 (
  id INTEGER PRIMARY KEY,
  account TEXT NOT NULL,
  topup TEXT REFERENCES topup (id),
  at_ms INTEGER NOT NULL,
  text TEXT NOT NULL,
  tx_hash BLOB,
  charge_id TEXT NOT NULL,
  block_number INTEGER,
  usd_value TEXT,
  price_source TEXT NOT NULL,
  hash BLOB                        -- see books.chained; null only while a ledger is brought here
) STRICT;
CREATE TABLE line_4 (
  entry INTEGER NOT NULL REFERENCES entry_4 (id),
  n INTEGER NOT NULL,
  account TEXT NOT NULL,
  commodity TEXT NOT NULL,
  units TEXT NOT NULL,
  PRIMARY KEY (entry, n)
) STRICT;
INSERT INTO entry_4 SELECT id, account, topup, at_ms, text, tx_hash, charge_id, block_number, usd_value, price_source,
  NULL FROM entry;
INSERT INTO line_4 SELECT entry, n, account, commodity, units FROM line;
DROP TABLE line;
DROP TABLE entry;
ALTER TABLE entry_4 RENAME TO entry;
ALTER TABLE line_4 RENAME TO line;
CREATE INDEX entry_topup ON entry (topup, id);
CREATE INDEX entry_time ON entry (account, at_ms);
CREATE TRIGGER entry_stands BEFORE UPDATE ON entry WHEN OLD.hash IS NOT NULL
BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
"""
FOURTH += APPEND_ONLY

# What the provider says of days that are over, by model and by key; and what a wallet held at a final block.
FIFTH = """
CREATE TABLE usage_known (         -- UTC days whose usage is stored; one without usage has no other row
  account TEXT NOT NULL,
  day INTEGER NOT NULL,            -- days since 1970-01-01
  at_ms INTEGER NOT NULL,          -- when it was asked for
  PRIMARY KEY (account, day)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_day (
  account TEXT NOT NULL,
  day INTEGER NOT NULL,
  split TEXT NOT NULL CHECK (split IN ('model', 'key')),  -- each split sums to the whole day
  name TEXT NOT NULL,              -- model, or hash of a key; '' where the provider names none
  nano INTEGER NOT NULL,           -- 10^-9 dollars of credit
  requests INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  PRIMARY KEY (account, day, split, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE api_key (             -- keys of the account that were ever seen
  account TEXT NOT NULL,
  hash TEXT NOT NULL,
  name TEXT NOT NULL,
  nano INTEGER NOT NULL,           -- what it had used in all when its days were asked for last
  PRIMARY KEY (account, hash)
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoint (          -- up to where movements of a wallet by others are booked
  account TEXT NOT NULL,
  chain_id INTEGER NOT NULL,
  wallet BLOB NOT NULL,
  commodity TEXT NOT NULL,
  block INTEGER NOT NULL,          -- final
  at_ms INTEGER NOT NULL,          -- its time
  units TEXT NOT NULL,             -- what the wallet held after it
  PRIMARY KEY (account, chain_id, wallet, commodity, block)
) STRICT, WITHOUT ROWID;
"""

# A wish is a row before anything else happens; a top-up carries the wish it was decided for.
SIXTH = """
ALTER TABLE request ADD COLUMN name TEXT;              -- what the wish is called (--request-id); null: it has no name
ALTER TABLE request ADD COLUMN uid INTEGER;            -- which user asked; null: stored before this version
ALTER TABLE request ADD COLUMN until_ms INTEGER;       -- until when somebody may begin with it
ALTER TABLE request ADD COLUMN withdrawn_ms INTEGER;   -- nobody acts on it, until it is repeated
ALTER TABLE request ADD COLUMN why TEXT;               -- the stable word for its outcome
ALTER TABLE request ADD COLUMN code INTEGER;           -- the exit code of its outcome; null while a top-up decides it
ALTER TABLE request ADD COLUMN told INTEGER;           -- the exit code that whoever asked was given last
CREATE UNIQUE INDEX one_wish_a_name ON request (account, name) WHERE name IS NOT NULL;
CREATE INDEX request_waiting ON request (account, id) WHERE outcome IS NULL AND withdrawn_ms IS NULL;
CREATE INDEX request_time ON request (account, at_ms);
ALTER TABLE topup ADD COLUMN wish INTEGER REFERENCES request (id);
CREATE UNIQUE INDEX one_purchase_a_wish ON topup (wish) WHERE wish IS NOT NULL AND state != 'dropped';
"""

# How far the logs of what may have paid a charge were read, where that takes more than a pass.
SEVENTH = """
CREATE TABLE piece (
  chain_id INTEGER NOT NULL,
  subject BLOB NOT NULL,           -- the charge: contract, operator and id; or token and authorization
  owner TEXT NOT NULL,             -- whose provider has shown it
  first INTEGER NOT NULL,          -- from this block on
  last INTEGER NOT NULL,           -- up to this one, both included
  anchor INTEGER NOT NULL CHECK (anchor >= last),  -- a final block of the chain that was read
  anchor_hash BLOB NOT NULL,
  carriers TEXT NOT NULL,          -- transactions of such a payment with their blocks, as JSON
  asked INTEGER NOT NULL,          -- questions so far
  spent_ms INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (chain_id, subject, owner)
) STRICT, WITHOUT ROWID;
"""

# Nonces of ours that the chain shows used, by no transaction that is known.
EIGHTH = """
CREATE TABLE taken (
  attempt INTEGER PRIMARY KEY REFERENCES attempt (id),  -- the oldest at that nonce
  since_ms INTEGER NOT NULL,       -- when it was noticed first
  block INTEGER,                   -- by the end of which the nonce was used; null while nobody could say
  block_hash BLOB
) STRICT;
"""

# What is told to people and programs that are not looking.
NINTH = """
CREATE TABLE message (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  account TEXT NOT NULL,
  subject TEXT NOT NULL,           -- a top-up, or an alarm: its messages are told in their order
  kind TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  body TEXT NOT NULL               -- JSON
) STRICT;
CREATE INDEX message_time ON message (at_ms);
CREATE TABLE delivery (
  message INTEGER NOT NULL REFERENCES message (id) ON DELETE CASCADE,
  target TEXT NOT NULL,
  tries INTEGER NOT NULL,
  next_ms INTEGER,                 -- when it is tried again; null when that is over
  ended_ms INTEGER,                -- delivered, or set aside
  outcome TEXT NOT NULL,
  PRIMARY KEY (message, target)
) STRICT, WITHOUT ROWID;
"""

# After this version the entries that are there are chained.
CHAINED_FROM = 4
MIGRATIONS: tuple[str, ...] = (FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH, EIGHTH, NINTH)
