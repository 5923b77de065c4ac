-- With `keep_residue`, the files of the image keep values that the script removed. `proved` is true if the finalise job searched the
-- files for such values and found none; images of older versions are not proved.
ALTER TABLE images ADD COLUMN keep_residue boolean NOT NULL DEFAULT false;
ALTER TABLE images ADD COLUMN proved boolean NOT NULL DEFAULT false;
