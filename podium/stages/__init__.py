"""The programs of the phases: `podium.stages.<name>.run(config, io) -> Result`."""
