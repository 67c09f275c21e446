"""What `farm best --export` writes beside an artifact: programs that need nothing of the farm, copied as they are."""
