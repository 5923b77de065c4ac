-- Of a failure only what may be published is kept here: earlier versions put the end of a log behind the first line.

UPDATE images SET failure_detail = split_part(failure_detail, E'\n', 1) WHERE failure_detail LIKE E'%\n%';
