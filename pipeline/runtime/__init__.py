"""What every stage may use: devices, batches, failure causes, full disks."""
