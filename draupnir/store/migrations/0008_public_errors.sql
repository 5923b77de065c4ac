-- Store only the public part of a failure, the first line. Earlier versions appended the end of a log.

UPDATE images SET failure_detail = split_part(failure_detail, E'\n', 1) WHERE failure_detail LIKE E'%\n%';
