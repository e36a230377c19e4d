-- migrate: no transaction
-- Texts are kept in Unicode's NFC from now on, and searched in it: what an older program stored otherwise would not be
-- found. The revision stays, since the text means the same. What an older program writes while it still runs beside the
-- new one stays as it is until it is written anew.
UPDATE product SET
    name = normalize(name),
    variant = normalize(variant),
    description = normalize(description),
    category = normalize(category)
WHERE name IS NOT NFC NORMALIZED
    OR variant IS NOT NFC NORMALIZED
    OR description IS NOT NFC NORMALIZED
    OR category IS NOT NFC NORMALIZED;
