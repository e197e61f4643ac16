"""Made-up heads with real anatomy: the ICBM 2009a template, warped, scanned and given a tumour."""
