"""The science: volumes, networks, phantoms and bundles. No DICOM networking and no database."""
