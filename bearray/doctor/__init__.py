"""What stands between this machine and a run: checks, each with how to mend what it finds."""

from bearray.doctor.diagnose import Options, diagnose
from bearray.doctor.finding import Finding, Status

__all__ = ["Finding", "Options", "Status", "diagnose"]
