"""API, rent or buy: what each way of serving costs, and one verdict. Pure, but for `intake`, which reads what people say."""
