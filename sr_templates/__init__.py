"""Result -> DICOM objects: Structured Report, saliency captures, summary page. No torch and no network."""
