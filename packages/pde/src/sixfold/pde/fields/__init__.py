"""Fields on grids: classical solvers, spectra and statistics, each usable without any network."""
