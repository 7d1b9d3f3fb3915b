"""The DICOM node: receives serial brain MRI, keeps a time line per patient, answers PACS with reports."""
