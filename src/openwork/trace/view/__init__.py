"""View: what the microscope shows of one request, as documents that a page, a file and the command line can draw."""
