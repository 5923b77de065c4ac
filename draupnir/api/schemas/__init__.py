"""Bodies of requests and answers, one module for each resource: requests are parsed leniently, answers are typed."""
