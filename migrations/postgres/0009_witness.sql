-- What shows that a database has lost commits, as a restored copy has, or a standby that was behind.

-- joins: boots that have joined so far. rewound: a boot has found less here than it was told; nobody joins
-- until an operator accepts it.
ALTER TABLE cluster_meta ADD COLUMN joins bigint NOT NULL DEFAULT 0;
ALTER TABLE cluster_meta ADD COLUMN rewound boolean NOT NULL DEFAULT false;

-- How often the boot's lease was renewed.
ALTER TABLE nodes ADD COLUMN beats bigint NOT NULL DEFAULT 0;
