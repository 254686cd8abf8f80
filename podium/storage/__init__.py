"""Files here and behind URIs: copies, digests, locks, writes that leave nothing half done. Nothing numerical."""
