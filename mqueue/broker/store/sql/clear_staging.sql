-- clear_staging: empties the staging table between two uses in one transaction.
DELETE FROM staging
