"""The report: one self-contained HTML page about results.

page puts it together: sources and dataset_files find what there is, case_choice which cases are shown; then a file a
section in the order of the page: page_top, subset_table, comparison_section, case_plot, viewer_part (viewer, assets),
calibration_section, training_section, data_section.
"""
