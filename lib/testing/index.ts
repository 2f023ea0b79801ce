/** `perdure/testing`: what tests of workflows need. The public names, nothing else. */
export {};
