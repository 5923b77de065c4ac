"""What requests ask and answers hold, a module a resource: requests are read tolerantly, answers are typed."""
