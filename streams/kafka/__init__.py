"""The log on Apache Kafka 4.x, through aiokafka, which nothing else imports."""
