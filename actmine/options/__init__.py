"""What each command may be asked: a record of options a file, read without any library that only the work needs."""
