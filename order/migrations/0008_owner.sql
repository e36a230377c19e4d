-- Whose order it is: the subject of the token with which it was placed. Empty for the orders that exist and for those of
-- guests: they are nobody's, and staff see them. The release before this one writes orders without it.
ALTER TABLE orders ADD COLUMN owner text NOT NULL DEFAULT '';
