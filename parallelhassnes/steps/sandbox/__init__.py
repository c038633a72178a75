"""Where the sandbox was, for stored plans and the job configs of users, which name it by its path."""
