-- A mark of the cluster secret that a node was started with, empty when it needs none: nodes that could
-- never speak with one another do not join one cluster. It says nothing of the secret itself.
ALTER TABLE nodes ADD COLUMN seal text NOT NULL DEFAULT '';
