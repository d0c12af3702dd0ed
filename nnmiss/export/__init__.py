"""Official submission formats and their validators.

Writing a submission: export_folder -> export_case (label_names, placement, enhancing_rule, uncertainty_maps, nifti_files)
-> zip_files, manifest, output_folder. Checking one: validation -> archive_reading -> submission_names, submission_images,
submission_voxels, by the rules in rules. Scores that come back: import_scores -> portal_scores -> portal_csv,
portal_columns. For both of the first: reference_images.
"""
