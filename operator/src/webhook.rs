//! `webhook-server`: function pods as KAI and their instance type want them.
