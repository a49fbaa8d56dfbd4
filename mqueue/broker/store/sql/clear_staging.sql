-- clear_staging: between two uses in one transaction.
DELETE FROM staging
